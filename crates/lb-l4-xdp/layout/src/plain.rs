//! Types that may be copied in and out of a map as bytes.

/// A type without padding, of which any bytes are a value.
///
/// # Safety
///
/// The type is `#[repr(C)]`, has no padding and no pointer, and every pattern of bits is a value of it.
#[expect(unsafe_code, reason = "only the type's author can promise this; `plain!` asserts the size")]
pub unsafe trait Plain: Copy + 'static {}

/// Asserts size and alignment of types, and makes them [`Plain`].
macro_rules! plain {
    ($($name:ty: $size:literal, $align:literal;)*) => {$(
        const _: () = assert!(core::mem::size_of::<$name>() == $size);
        const _: () = assert!(core::mem::align_of::<$name>() == $align);
        // SAFETY: the fields of the type are integers and arrays of them, and their sizes sum up to the asserted size.
        #[expect(unsafe_code, reason = "the trait is a promise about memory")]
        unsafe impl $crate::plain::Plain for $name {}
    )*};
}

pub(crate) use plain;
