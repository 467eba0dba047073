//! The part that decides whether anything moves. Pure functions of time and input; reviewed by eye.
