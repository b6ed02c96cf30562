//! Empty: gives cargo a library target to track; the program is `main.rs`.
#![no_std]
