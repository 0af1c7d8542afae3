//! An independent model of the whole registry, and the driver that holds a real registry to it.
//!
//! A history is a list of [`Step`]s, made from a seed and without knowledge of any answer, so that steps may be left out
//! of it. The driver takes each step on the registry and on the [`Model`], and compares the two answers and what both
//! say when they are read. Between the steps it kills actors, lets them rest, reopens the store and changes the handle:
//! none of it may be seen.

mod driver;
mod gossip;
mod history;
mod model;
mod reads;
mod scene;
mod subject;

pub use driver::{Difference, Played, play};
pub use history::{Case, Step, history, read_case, shrink, write_case};
pub use model::{Hint, Model, No, Projected};
pub use subject::{Backend, Subject};
