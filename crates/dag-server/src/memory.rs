//! How memory is taken from the system and given back.
//!
//! Of the huge pages that the allocator asks for, most of a page may be unused for ever: a node with
//! many quiet databases takes twice the memory that it uses. So it has none.
//!
//! For the C library: mails come and go as blocks of some ten kilobytes. By default glibc maps and unmaps the larger
//! of them one by one, and trims the heap each time its end is free: system calls and page faults
//! for every message. Above these thresholds it does so only for what is really large.

/// Takes small pages, and sets the C library's thresholds; harmless where that is another one.
pub fn tune() {
    // An old kernel may not know the request; what is lost is memory.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
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
