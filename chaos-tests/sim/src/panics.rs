//! A panic in a simulated task is a finding, so its words must be kept and not printed.

use std::cell::RefCell;
use std::sync::Once;

thread_local! {
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

static HOOK: Once = Once::new();

/// From now on the first panic of a thread is kept for [`take`]; with the environment variable
/// `SIM_PANICS` it is printed as well.
pub fn keep() {
    HOOK.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            LAST.with_borrow_mut(|last| {
                last.get_or_insert_with(|| info.to_string());
            });
            if std::env::var_os("SIM_PANICS").is_some() {
                print(info);
            }
        }));
    });
}

/// Passes over the panic that was kept, where it was caught and its words are this fault's.
pub fn forgive(fault: &str) {
    LAST.with_borrow_mut(|last| {
        let words = |panic: &String| panic.lines().skip(1).collect::<Vec<_>>().join("\n");
        if last.as_ref().is_some_and(|panic| fault.contains(&words(panic))) {
            *last = None;
        }
    });
}

/// Goes on with the panic that was kept, if there is one.
pub fn go_on() {
    if let Some(words) = LAST.with_borrow(Clone::clone) {
        panic!("{words}");
    }
}

/// The words of the first panic of this thread since the last call.
pub fn take() -> Option<String> {
    LAST.with_borrow_mut(Option::take)
}
