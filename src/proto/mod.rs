//! Protocols as bytes to values and back: no sockets, no clock, no allocation on the command path.
