//! A fresh, isolated database per test (feature `testing`).
