//! CAN frames, identifiers and the candump text form. Pure: no sockets, no clock.
