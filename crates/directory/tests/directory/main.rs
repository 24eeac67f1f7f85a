//! The directory over the real dispatcher, with a clock that stands still.

mod grants;
mod graph;
mod identity;
mod pages;
mod refusals;
mod world;
