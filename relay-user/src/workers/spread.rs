//! Decides how many workers the load needs, by the CPU time that all of them use together.

/// Share of their cores that the used workers may take before another one is added.
const FULL: f64 = 0.75;

/// Looks in a row that must find the workers full before another one is added: logins come in bursts.
const URGENCY: u32 = 3;

/// Looks in a row before fewer workers are tried: at first, and at most. The number doubles each time that
/// fewer workers were not enough.
const PATIENCE: u32 = 10;
const MOST_PATIENCE: u32 = 300;

/// The number of workers in use.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    most: usize,
    active: usize,
    /// Looks in a row that found the workers full.
    full: u32,
    /// Looks in a row that found a load for which fewer workers may be enough.
    sparse: u32,
    patience: u32,
    /// Looks since fewer workers were tried.
    tried: u32,
}

impl Spread {
    /// Starts with one worker of `most`.
    pub fn new(most: usize) -> Self {
        Self { most: most.max(1), active: 1, full: 0, sparse: 0, patience: PATIENCE, tried: MOST_PATIENCE }
    }

    /// Notes the load since the last look: how many cores' worth of time all workers used. Returns the number
    /// of workers to use from now on.
    pub fn look(&mut self, cores: f64) -> usize {
        let active = self.active as f64;
        self.tried = self.tried.saturating_add(1);
        self.full = if cores > FULL * active { self.full + 1 } else { 0 };
        // Fewer workers need less time for the same load: two workers may need half as much again as one.
        // Only a trial shows how much.
        let may_fit = self.active > 1 && cores < FULL * (active - 0.5);
        self.sparse = if may_fit { self.sparse + 1 } else { 0 };
        if self.full >= URGENCY && self.active < self.most {
            // Workers cannot show more load than they can carry, so the next look may add more.
            let needed = (cores / FULL).ceil() as usize;
            self.active = needed.clamp(self.active + 1, self.most);
            let in_vain = self.tried <= 2 * PATIENCE;
            self.patience = if in_vain { (2 * self.patience).min(MOST_PATIENCE) } else { PATIENCE };
            (self.full, self.sparse) = (0, 0);
        } else if self.sparse >= self.patience {
            self.active -= 1;
            (self.full, self.sparse, self.tried) = (0, 0, 0);
        }
        self.active
    }
}

/// The worker for a connection when the number of used workers changes from `before` to `active`. The
/// connection is the `nth` of all connections and is now on worker `at`. Only the needed connections move:
/// those of workers that are no longer used, and each new worker's fair share.
pub fn place(nth: usize, at: usize, before: usize, active: usize) -> usize {
    if at >= active {
        return nth % active;
    }
    let share = nth % active;
    if (before..active).contains(&share) { share } else { at }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks until the number changes; returns the number of looks and the new number.
    fn until_changed(spread: &mut Spread, load: impl Fn(usize) -> f64) -> Option<(u32, usize)> {
        let before = spread.active;
        (1..10_000).find_map(|looks| {
            let active = spread.look(load(spread.active));
            (active != before).then_some((looks, active))
        })
    }

    #[test]
    fn a_load_gets_the_workers_it_needs_and_they_are_let_go_when_it_is_over() {
        let mut spread = Spread::new(8);
        assert_eq!(until_changed(&mut spread, |_| 0.74), None);
        let mut seen = Vec::new();
        while spread.active < 8 {
            // The full load that the workers can carry, each time.
            seen.push(until_changed(&mut spread, |active| active as f64).expect("more"));
        }
        assert_eq!(seen, [(3, 2), (3, 3), (3, 4), (3, 6), (3, 8)]);
        assert_eq!(until_changed(&mut spread, |active| active as f64), None);
        for left in (1..8).rev() {
            assert_eq!(until_changed(&mut spread, |_| 0.0), Some((PATIENCE, left)));
        }
        assert_eq!(until_changed(&mut spread, |_| 0.0), None);
    }

    #[test]
    fn a_burst_is_no_load() {
        let mut spread = Spread::new(2);
        for _ in 0..100 {
            assert_eq!([1.0, 1.0, 0.1].map(|cores| spread.look(cores)), [1, 1, 1]);
        }
    }

    #[test]
    fn a_load_that_costs_less_on_fewer_workers_ends_up_there() {
        // Six tenths of a core on one worker become one core on two.
        let mut spread = Spread::new(2);
        let load = |active| if active == 1 { 0.6 } else { 1.0 };
        spread.active = 2;
        assert_eq!(until_changed(&mut spread, load), Some((PATIENCE, 1)));
        assert_eq!(until_changed(&mut spread, load), None);
    }

    #[test]
    fn fewer_workers_are_tried_ever_more_seldom_if_they_are_never_enough() {
        let mut spread = Spread::new(2);
        let load = |active| if active == 1 { 0.9 } else { 1.0 };
        let mut waits = Vec::new();
        for _ in 0..8 {
            assert_eq!(until_changed(&mut spread, load), Some((URGENCY, 2)));
            waits.push(until_changed(&mut spread, load).expect("tried").0);
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300, 300]);
        // A light load resets the patience.
        until_changed(&mut spread, |_| 0.1);
        until_changed(&mut spread, load);
        assert_eq!(until_changed(&mut spread, load), Some((PATIENCE, 1)));
    }

    #[test]
    fn connections_are_shared_out_evenly_and_few_of_them_move() {
        const CONNECTIONS: usize = 1200;
        let mut at = vec![0; CONNECTIONS];
        let mut before = 1;
        for active in [2, 3, 5, 8, 7, 4, 1] {
            let was = at.clone();
            for (nth, at) in at.iter_mut().enumerate() {
                *at = place(nth, *at, before, active);
            }
            let moved = was.iter().zip(&at).filter(|(was, is)| was != is).count();
            let held = |worker| at.iter().filter(|at| **at == worker).count();
            assert_eq!((0..active).map(held).sum::<usize>(), CONNECTIONS);
            let (fair, least) = (CONNECTIONS / active, (0..active).map(held).min().expect("some"));
            assert!(least > fair / 3, "{active} after {before}: {least} of {fair}");
            let must: usize = CONNECTIONS * active.abs_diff(before) / active.max(before);
            assert!(moved <= must + must / 2, "{active} after {before}: {moved} of {must} moved");
            before = active;
        }
    }
}
