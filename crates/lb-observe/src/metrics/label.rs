//! What a label with a fixed set of values is, and an array over it.

use std::fmt;

/// A label with a fixed set of values.
pub trait Label: Copy + fmt::Debug + Sized + 'static {
    /// Every value, in order.
    const ALL: &'static [Self];
    /// What each value is called in the exposition, in the order of [`ALL`](Self::ALL).
    const NAMES: &'static [&'static str];
    /// One `T` for each value.
    type Array<T: Default + fmt::Debug>: Default + fmt::Debug;

    /// What this value is called in the exposition.
    fn name(self) -> &'static str;

    /// The element of `array` that belongs to this value.
    fn select<T: Default + fmt::Debug>(self, array: &Self::Array<T>) -> &T;
}

/// One `T` for each value of the label `L`.
#[derive(Debug)]
pub struct By<L: Label, T: Default + fmt::Debug>(L::Array<T>);

impl<L: Label, T: Default + fmt::Debug> By<L, T> {
    /// The element of this label value.
    pub fn of(&self, label: L) -> &T {
        label.select(&self.0)
    }
}

impl<L: Label, T: Default + fmt::Debug> Default for By<L, T> {
    fn default() -> Self {
        Self(L::Array::default())
    }
}

/// Makes an enum that exists a label.
macro_rules! label {
    ($label:ident { $($variant:ident = $name:expr,)+ }) => {
        impl Label for $label {
            const ALL: &'static [Self] = &[$(Self::$variant),+];
            const NAMES: &'static [&'static str] = &[$($name),+];
            type Array<T: Default + fmt::Debug> = [T; const { [$($name),+].len() }];

            fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            // Taking the array apart by pattern proves that no value is without an element.
            #[expect(non_snake_case, reason = "each binding is named after its variant")]
            fn select<T: Default + fmt::Debug>(self, array: &Self::Array<T>) -> &T {
                let [$($variant),+] = array;
                match self { $(Self::$variant => $variant),+ }
            }
        }
    };
}

pub(super) use label;

macro_rules! labels {
    ($($(#[$doc:meta])* $label:ident { $($(#[$variant_doc:meta])* $variant:ident = $name:literal,)+ })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $label { $($(#[$variant_doc])* $variant,)+ }

        label!($label { $($variant = $name,)+ });
    )+};
}

pub(super) use labels;
