//! Machines over the real dispatchers, with real tokens from the real directory.

mod heartbeats;
mod resources;
mod world;
