//! Goal: whatever its servers are to one another, a backup holds all of a cluster, and harms none of it. Method: the real
//! service beside real clusters and real sentinels, on good days and on bad ones.

mod addresses;
mod built;
mod clusters;
mod watched;
