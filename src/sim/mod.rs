//! Simulators: the OCP servers, the vehicle, a world in virtual time with faulty links and checkers.

pub mod gamepad;
pub mod live;
pub mod ocp;
pub mod vehicle;

pub mod world;
