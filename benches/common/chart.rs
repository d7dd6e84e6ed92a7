//! A chart of grouped bars on a logarithmic scale, as SVG.

use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

/// What a chart shows: for each category, a bar for each series.
#[derive(Debug)]
pub struct Chart {
    pub title: String,
    pub categories: Vec<String>,
    /// The name of each series, and its value in each category, if it has one.
    pub series: Vec<(String, Vec<Option<f64>>)>,
}

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 70.0;
const TOP: f64 = 60.0;
const BOTTOM: f64 = 350.0;
const COLOURS: &[&str] = &[
    "#1a7f37", "#57ab5a", "#0969da", "#8250df", "#bf8700", "#cf222e", "#57606a", "#e16f24",
];

impl Chart {
    /// Writes the picture.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        fs::write(path, self.svg())
    }

    fn svg(&self) -> String {
        let values = self.series.iter().flat_map(|(_, values)| values.iter().flatten());
        let (low, high) = values.fold((f64::MAX, f64::MIN_POSITIVE), |(low, high), &value| {
            (low.min(value), high.max(value))
        });
        let (low, high) = (low.min(high).log10().floor(), high.log10().ceil());
        let height = |value: f64| (value.log10() - low) / (high - low).max(1.0) * (BOTTOM - TOP);
        let mut svg = String::new();
        let mut line = |text: String| {
            // Writing to a text does not fail.
            let _infallible = writeln!(svg, "{text}");
        };
        line(format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" font-family="sans-serif" font-size="13">"#
        ));
        line(format!("<title>{}</title>", self.title));
        line(format!(
            r##"<rect width="{WIDTH}" height="{HEIGHT}" rx="12" fill="#ffffff"/>"##
        ));
        line(format!(
            r##"<text x="{}" y="30" font-size="16" text-anchor="middle" fill="#24292f">{}</text>"##,
            WIDTH / 2.0,
            self.title
        ));
        for power in low as i32..=high as i32 {
            let value = 10_f64.powi(power);
            let y = BOTTOM - height(value);
            line(format!(
                r##"<path d="M{LEFT},{y:.1} H{:.1}" stroke="#d0d7de"/>"##,
                WIDTH - 20.0
            ));
            line(format!(
                r##"<text x="{}" y="{:.1}" text-anchor="end" fill="#57606a">{value}</text>"##,
                LEFT - 8.0,
                y + 4.0
            ));
        }
        let room = (WIDTH - 20.0 - LEFT) / self.categories.len().max(1) as f64;
        let bar = room * 0.8 / self.series.len().max(1) as f64;
        for (number, category) in self.categories.iter().enumerate() {
            let left = LEFT + room * number as f64 + room * 0.1;
            for (place, (_, values)) in self.series.iter().enumerate() {
                let Some(value) = values.get(number).copied().flatten() else {
                    continue;
                };
                let (x, tall) = (left + bar * place as f64, height(value));
                line(format!(
                    r#"<rect x="{x:.1}" y="{:.1}" width="{:.1}" height="{tall:.1}" fill="{}"><title>{value:.1}</title></rect>"#,
                    BOTTOM - tall,
                    bar * 0.92,
                    COLOURS[place % COLOURS.len()]
                ));
            }
            line(format!(
                r##"<text x="{:.1}" y="{}" text-anchor="middle" fill="#24292f">{category}</text>"##,
                left + room * 0.4,
                BOTTOM + 20.0
            ));
        }
        self.legend(&mut svg);
        svg + "</svg>\n"
    }

    /// The names of the series, below the bars.
    fn legend(&self, svg: &mut String) {
        // Writing to a text does not fail.
        let mut x = LEFT;
        for (place, (name, _)) in self.series.iter().enumerate() {
            let colour = COLOURS[place % COLOURS.len()];
            let _infallible = write!(
                svg,
                r##"<rect x="{x:.1}" y="385" width="12" height="12" fill="{colour}"/>
<text x="{:.1}" y="396" font-size="11" fill="#24292f">{name}</text>
"##,
                x + 16.0
            );
            // About the width of the text.
            x += 26.0 + 5.6 * name.len() as f64;
        }
    }
}
