//! How each thread waits. A thread is a place to wait, not a place to think.
