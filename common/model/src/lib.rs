//! Calico's resources, keys, selectors and blocks, typed both ways.
