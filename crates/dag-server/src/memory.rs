//! How the C library gives memory back.
//!
//! Mails come and go as blocks of some ten kilobytes. By default glibc maps and unmaps the larger
//! of them one by one, and trims the heap each time its end is free: system calls and page faults
//! for every message. Above these thresholds it does so only for what is really large.

/// Sets the thresholds; harmless where the C library is another one.
pub fn tune() {
    #[cfg(target_env = "gnu")]
    {
        unsafe extern "C" {
            fn mallopt(parameter: i32, value: i32) -> i32;
        }
        const M_TRIM_THRESHOLD: i32 = -1;
        const M_MMAP_THRESHOLD: i32 = -3;
        // SAFETY: mallopt takes two integers, keeps no pointers, and is called before any thread
        // but the main one exists.
        unsafe {
            mallopt(M_MMAP_THRESHOLD, 32 << 20);
            mallopt(M_TRIM_THRESHOLD, 128 << 20);
        }
    }
}
