//! What holds with a secret and without.

/// Each test, among nodes that trust their network and among such that have a secret.
macro_rules! both {
    ($($name:ident),* $(,)?) => {
        mod in_clear {
            $(#[test] fn $name() { super::$name(false) })*
        }
        mod sealed {
            $(#[test] fn $name() { super::$name(true) })*
        }
    };
}
