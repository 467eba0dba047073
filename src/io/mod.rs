//! Sockets, CAN buses, the clock and the kernel. Waits and moves bytes; decides nothing.
