//! Simulators: the OCP servers, the vehicle, a server of Assetto Corsa, a world in virtual time with faulty links and checkers.

pub mod assetto;
pub mod gamepad;
pub mod live;
pub mod ocp;
pub mod vehicle;

pub mod world;
