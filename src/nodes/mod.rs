//! What each thread decides. Pure: protocols and the safety core meet here and nowhere else.
