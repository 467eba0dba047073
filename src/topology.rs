//! Every thread and every channel of the process, declared in one table.
