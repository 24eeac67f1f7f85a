//! A started site, from outside: the program, its proxy, real curl, the public wire.

mod access;
mod lifecycle;
mod proxy;
mod strangers;
mod support;
mod tokens;
