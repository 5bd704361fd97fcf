//! The simulator's own tests.

use super::*;
