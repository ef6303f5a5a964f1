//! Goal: a backup is kind to its source, and is not fooled by it. Method: the service beside real servers that lose their data, change
//! places or are busy, and beside a scripted one where a moment has to be held.

mod places;
mod suspect;
mod wide;
mod window;
