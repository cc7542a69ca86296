//! What a copy told, and must still know when its node comes back.
//!
//! An entry that a copy told to be durable stays, unless another leader's log takes its place: then
//! the copy tells of that before it begins, and once more when it is done.

/// The promises of one copy.
#[derive(Debug, Clone, Default)]
pub struct Promise {
    /// The greatest term that it told to have voted in.
    pub voted: u64,
    /// What stays of the log, where a cut has begun and has not ended.
    cutting: Option<Option<u64>>,
    /// The last entry of each telling, and when that was by the node's clock; both only grow.
    told: Vec<(u64, u64)>,
}

impl Promise {
    /// It told that everything up to `index` is durable.
    pub fn durable(&mut self, index: u64, now_ms: u64) {
        self.told.push((index, now_ms));
    }

    /// It told that everything behind `last` is taken out, or is about to be.
    pub fn cut(&mut self, last: Option<u64>, durable: bool) {
        if durable {
            self.take_back(last);
        } else {
            self.cutting = Some(last);
        }
    }

    /// It was opened with `found` for its last entry: a cut that had begun is over, either way.
    pub fn opened(&mut self, found: Option<u64>) {
        self.take_back(found);
    }

    fn take_back(&mut self, last: Option<u64>) {
        self.cutting = None;
        if let Some(first) = self.told.iter().position(|(index, _)| Some(*index) > last) {
            let at = self.told[first].1;
            self.told.truncate(first);
            // What stays was told together with what goes.
            self.told.extend(last.map(|last| (last, at)));
        }
    }

    /// The last entry that it must still hold.
    pub fn kept(&self) -> Option<u64> {
        let told = self.told.last().map(|(index, _)| *index);
        self.cutting.map_or(told, |last| told.min(last))
    }

    /// When it told of the first entry that is missing, where it was opened with `found` for its
    /// last entry and must hold more.
    pub fn lost_at(&self, found: Option<u64>) -> Option<u64> {
        let missing = |(index, _): &&(u64, u64)| Some(*index) > found;
        (found < self.kept()).then(|| self.told.iter().find(missing).map_or(0, |(_, at)| *at))
    }
}
