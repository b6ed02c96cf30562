//! Harness of the lab tests.
