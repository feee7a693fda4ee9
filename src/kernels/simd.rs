//! [`vectorised!`]: loops compiled for AVX-512, AVX2 and any processor, chosen at run time.

/// Defines functions whose bodies are compiled for each instruction set.
macro_rules! vectorised {
    ($(
        $(#[$meta:meta])*
        $vis:vis fn $name:ident $(<$t:ident: Scalar $(, $f:ident: $bound:path)?>)?(
            $($argument:ident: $type:ty),* $(,)?
        ) $body:block
    )*) => {$(
        $(#[$meta])*
        $vis fn $name $(<$t: Scalar $(, $f: $bound)?>)?($($argument: $type),*) {
            #[inline(always)]
            fn generic $(<$t: Scalar $(, $f: $bound)?>)?($($argument: $type),*) $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,fma")]
                fn avx512 $(<$t: Scalar $(, $f: $bound)?>)?($($argument: $type),*) {
                    generic($($argument),*)
                }

                #[target_feature(enable = "avx2,fma")]
                fn avx2 $(<$t: Scalar $(, $f: $bound)?>)?($($argument: $type),*) {
                    generic($($argument),*)
                }

                if $crate::kernels::simd::has_avx512() {
                    // SAFETY: the processor has the features for which the function was compiled.
                    #[allow(unsafe_code)]
                    return unsafe { avx512($($argument),*) };
                }
                if $crate::kernels::simd::has_avx2() {
                    // SAFETY: as above.
                    #[allow(unsafe_code)]
                    return unsafe { avx2($($argument),*) };
                }
            }
            generic($($argument),*)
        }
    )*};
}
pub(crate) use vectorised;

#[cfg(target_arch = "x86_64")]
pub(crate) fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("fma")
}

#[cfg(target_arch = "x86_64")]
pub(crate) fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn has_avx512() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn has_avx2() -> bool {
    false
}
