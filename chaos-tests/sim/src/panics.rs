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

/// The words of the first panic of this thread since the last call.
pub fn take() -> Option<String> {
    LAST.with_borrow_mut(Option::take)
}
