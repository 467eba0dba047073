//! What the vehicle reports, with its age.
