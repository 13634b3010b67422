//! Numbers in order: medians, percentiles, and the table they end in.

use std::time::Duration;

/// What is printed at the end.
#[derive(Default)]
pub struct Report {
    rows: Vec<[String; 4]>,
}

impl Report {
    /// One figure, with the floor it is held against and what may be reached.
    pub fn row(&mut self, what: &str, figure: String, floor: String, reach: &str) {
        eprintln!("{what}: {figure} (floor {floor}, reach {reach})");
        self.rows.push([what.to_owned(), figure, floor, reach.to_owned()]);
    }

    pub fn print(&self) {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
        table.set_header(["what", "median", "floor in this run", "reach"]);
        for row in &self.rows {
            table.add_row(row);
        }
        println!("{table}");
    }
}

/// The value below which `share` of the samples lie.
pub fn percentile(samples: &mut [Duration], share: f64) -> Duration {
    samples.sort_unstable();
    let at = ((samples.len() as f64 - 1.0) * share).round() as usize;
    samples.get(at).copied().unwrap_or_default()
}

pub fn median(samples: &mut [Duration]) -> Duration {
    percentile(samples, 0.5)
}

pub fn median_of(numbers: &mut [f64]) -> f64 {
    numbers.sort_unstable_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or_default()
}

pub fn ms(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1e3)
}

/// This process's CPU time so far: what the measuring client costs.
pub fn own_cpu() -> Duration {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF)
        .expect("a process has usage");
    let of = |time: nix::sys::time::TimeVal| {
        Duration::from_secs(time.tv_sec() as u64) + Duration::from_micros(time.tv_usec() as u64)
    };
    of(usage.user_time()) + of(usage.system_time())
}
