//! The curves as pictures: `benches/plots/*.svg`, each from measurements of its own.

use std::error::Error;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::table::{ALL, Programs, Wanted, lines_of};

/// One system's points.
struct Curve {
    name: String,
    points: Vec<(f64, f64)>,
}

/// One picture.
struct Plot {
    file: &'static str,
    title: &'static str,
    x: &'static str,
    y: &'static str,
    curves: Vec<Curve>,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 170.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
const COLOURS: [&str; 6] = ["#7f7f7f", "#d62728", "#1f77b4", "#2ca02c", "#17becf", "#9467bd"];

/// Measures and draws all of them.
pub fn draw(wanted: &Wanted, programs: &Programs) -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/plots");
    std::fs::create_dir_all(&folder)?;
    for plot in [outstanding(wanted, programs)?, nodes(wanted)?, growth(wanted)?, restart(wanted)?]
    {
        std::fs::write(folder.join(plot.file), svg(&plot))?;
        println!("{}", folder.join(plot.file).display());
    }
    Ok(())
}

fn lines(program: &Path, args: &[&str]) -> Result<Vec<Value>, Box<dyn Error>> {
    lines_of(Command::new(program).args(args))
}

/// The points of the lines by two of their fields.
fn points(lines: &[Value], x: &str, y: &str) -> Vec<(f64, f64)> {
    lines.iter().filter_map(|line| Some((line[x].as_f64()?, line[y].as_f64()?))).collect()
}

fn outstanding(wanted: &Wanted, programs: &Programs) -> Result<Plot, Box<dyn Error>> {
    let seconds = wanted.seconds.to_string();
    let mut curves = Vec::new();
    for &system in ALL {
        let Some(program) = programs.of(system) else { continue };
        let k = "1,4,16,64,256,1024,4096,16384";
        let args = ["--peer", system, "--test", "load", "--secs", &seconds, "--k", k];
        let points = points(&lines(program, &args)?, "k", "per_s");
        curves.push(Curve { name: system.to_string(), points });
    }
    Ok(Plot {
        file: "outstanding.svg",
        title: "Commits a second, three nodes, 64 B",
        x: "requests outstanding",
        y: "commits a second",
        curves,
    })
}

fn nodes(wanted: &Wanted) -> Result<Plot, Box<dyn Error>> {
    let seconds = wanted.seconds.to_string();
    let mut curves = Vec::new();
    for k in ["64", "1024"] {
        let mut curve = Curve { name: format!("{k} outstanding"), points: Vec::new() };
        for nodes in ["1", "3", "5", "7", "9"] {
            let args = ["--test", "load", "--secs", &seconds, "--k", k, "--nodes", nodes];
            let found = points(&lines(&std::env::current_exe()?, &args)?, "k", "per_s");
            curve
                .points
                .extend(found.first().map(|(_, rate)| (nodes.parse().unwrap_or(0.0), *rate)));
        }
        curves.push(curve);
    }
    Ok(Plot {
        file: "nodes.svg",
        title: "Commits a second by the number of nodes, 64 B",
        x: "nodes, all on one machine",
        y: "commits a second",
        curves,
    })
}

fn growth(wanted: &Wanted) -> Result<Plot, Box<dyn Error>> {
    let seconds = wanted.seconds.to_string();
    let args = ["--test", "growth", "--secs", &seconds];
    let lines = lines(&std::env::current_exe()?, &args)?;
    let curve = |name: &str, field| Curve {
        name: name.to_string(),
        points: points(&lines, "entries", field),
    };
    Ok(Plot {
        file: "growth.svg",
        title: "Latency of one client by the length of the log, three nodes, 32 B",
        x: "entries kept",
        y: "microseconds",
        curves: vec![curve("half within", "p50_us"), curve("99 % within", "p99_us")],
    })
}

fn restart(wanted: &Wanted) -> Result<Plot, Box<dyn Error>> {
    let folder = wanted.durable.to_string_lossy();
    let mut curve = Curve { name: "32 B".to_string(), points: Vec::new() };
    for entries in ["10000", "30000", "100000", "300000", "1000000"] {
        let args = ["--test", "recovery", "--durable", &folder, "--entries", entries];
        curve.points.extend(points(&lines(&std::env::current_exe()?, &args)?, "entries", "ms"));
    }
    Ok(Plot {
        file: "restart.svg",
        title: "Reading a log back from the disk",
        x: "entries behind the snapshot",
        y: "milliseconds",
        curves: vec![curve],
    })
}

/// The powers of ten around some numbers.
fn span(numbers: impl Iterator<Item = f64>) -> (f64, f64) {
    let (mut least, mut most) = (f64::MAX, f64::MIN);
    for number in numbers.filter(|number| *number > 0.0) {
        (least, most) = (least.min(number), most.max(number));
    }
    let (least, most) = (least.log10().floor(), most.log10().ceil());
    (least, if most > least { most } else { least + 1.0 })
}

/// Both axes by powers of ten: what grows in proportion is a straight line.
fn svg(plot: &Plot) -> String {
    let all = || plot.curves.iter().flat_map(|curve| curve.points.iter().copied());
    let (x_span, y_span) = (span(all().map(|point| point.0)), span(all().map(|point| point.1)));
    let place = |number: f64, (least, most): (f64, f64), from: f64, to: f64| {
        from + (number.log10() - least) / (most - least) * (to - from)
    };
    let x = |number| place(number, x_span, LEFT, WIDTH - RIGHT);
    let y = |number| place(number, y_span, HEIGHT - BOTTOM, TOP);
    let mut out = String::new();
    let mut put = |text: String| {
        let _ = writeln!(out, "{text}");
    };
    let (middle, centre) = ((LEFT + WIDTH - RIGHT) / 2.0, (TOP + HEIGHT - BOTTOM) / 2.0);
    let below = HEIGHT - 12.0;
    put(format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="white"/>
<text x="{LEFT}" y="24" font-size="15">{}</text>
<text x="{middle}" y="{below}" text-anchor="middle">{}</text>
<text x="16" y="{centre}" transform="rotate(-90 16 {centre})" text-anchor="middle">{}</text>"#,
        plot.title, plot.x, plot.y,
    ));
    let grid = |span: (f64, f64)| (span.0 as i32..=span.1 as i32).map(|power| 10f64.powi(power));
    for number in grid(x_span) {
        let at = x(number);
        let bottom = HEIGHT - BOTTOM;
        put(format!(
            r##"<path d="M{at:.1} {TOP}V{bottom}" stroke="#ddd"/><text x="{at:.1}" y="{}" text-anchor="middle">{}</text>"##,
            bottom + 16.0,
            short(number)
        ));
    }
    for number in grid(y_span) {
        let at = y(number);
        let right = WIDTH - RIGHT;
        put(format!(
            r##"<path d="M{LEFT} {at:.1}H{right}" stroke="#ddd"/><text x="{}" y="{:.1}" text-anchor="end">{}</text>"##,
            LEFT - 6.0,
            at + 4.0,
            short(number)
        ));
    }
    for (number, curve) in plot.curves.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let points: Vec<String> = curve
            .points
            .iter()
            .map(|point| format!("{:.1},{:.1}", x(point.0), y(point.1)))
            .collect();
        put(format!(
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2"/>"#,
            points.join(" ")
        ));
        for point in &curve.points {
            put(format!(
                r#"<circle cx="{:.1}" cy="{:.1}" r="3" fill="{colour}"/>"#,
                x(point.0),
                y(point.1)
            ));
        }
        let line = TOP + 16.0 * (number as f64 + 1.0);
        put(format!(
            r#"<text x="{}" y="{line}" fill="{colour}">{}</text>"#,
            WIDTH - RIGHT + 14.0,
            curve.name
        ));
    }
    put("</svg>".to_string());
    out
}

fn short(number: f64) -> String {
    match number {
        _ if number >= 1e6 => format!("{} M", number / 1e6),
        _ if number >= 1e3 => format!("{} K", number / 1e3),
        _ => number.to_string(),
    }
}
