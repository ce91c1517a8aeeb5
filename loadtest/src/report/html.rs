//! A report as one HTML page without external files: remarks, plots, table.

use std::fmt::{self, Write};

use crate::report::escape::HtmlEscaped;
use crate::report::{Parameter, ReportFile, ScenarioReport, svg};

const STYLE: &str = include_str!("html.css");

/// Makes the page of a report.
pub(crate) fn page<R: ScenarioReport>(file: &ReportFile<R>) -> String {
    let mut page = String::new();
    write(&mut page, file).expect("writing to a string does not fail");
    page
}

fn write<R: ScenarioReport>(out: &mut String, file: &ReportFile<R>) -> fmt::Result {
    let scenario = HtmlEscaped(&file.scenario);
    writeln!(out, "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">")?;
    writeln!(out, r#"<meta name="viewport" content="width=device-width, initial-scale=1">"#)?;
    writeln!(out, r#"<meta name="color-scheme" content="light dark">"#)?;
    writeln!(
        out,
        "<title>Load test: {scenario}</title>\n<style>\n{}{STYLE}</style>\n</head>\n<body>",
        svg::STYLE
    )?;
    writeln!(out, "<h1>{scenario}</h1>")?;
    for remark in &file.remarks {
        writeln!(out, "<p class=\"remark\">{}</p>", HtmlEscaped(remark))?;
    }
    for plot in file.detail.plots() {
        writeln!(out, "<figure>\n<figcaption>{}</figcaption>", HtmlEscaped(&plot.title))?;
        writeln!(out, "{}</figure>", plot.svg())?;
    }
    writeln!(out, "<table>\n<thead><tr><th>Figure</th><th>Value</th></tr></thead>\n<tbody>")?;
    for Parameter { name, value } in &file.parameters {
        writeln!(out, "<tr><td>{}</td><td>{}</td></tr>", HtmlEscaped(name), HtmlEscaped(value))?;
    }
    for row in &file.rows {
        writeln!(out, "<tr><td>{}</td><td>{}</td></tr>", HtmlEscaped(&row.name), HtmlEscaped(&row.show()))?;
    }
    writeln!(out, "</tbody>\n</table>\n</body>\n</html>")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Row;
    use crate::report::svg::{Axis, Plot, Scale};
    use crate::report::unit::Unit;

    struct HostileReport;

    impl ScenarioReport for HostileReport {
        fn parameters(&self) -> Vec<Parameter> {
            vec![Parameter::new("<i>", "a & b")]
        }

        fn rows(&self) -> Vec<Row> {
            vec![
                Row::new("dropped{reason=\"<script>\"}", Unit::Count, Some(3.0)),
                Row::new("x", Unit::Time, None),
            ]
        }

        fn remarks(&self) -> Vec<String> {
            vec!["</p><script>alert('&')</script>".to_owned()]
        }

        fn plots(&self) -> Vec<Plot> {
            vec![Plot {
                title: "<b>".to_owned(),
                x: Axis::new("x", Unit::Count, Scale::Linear),
                y: Axis::new("y", Unit::Count, Scale::Log),
                lines: vec![("line".to_owned(), vec![(1.0, 2.0)])],
                limit: None,
            }]
        }

        fn is_damaged(&self) -> bool {
            false
        }
    }

    #[test]
    fn a_page_shows_all_parts_and_escapes_text() {
        let page = page(&HostileReport.into_file("hostile"));
        assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
        assert!(page.contains("<td>dropped{reason=&quot;&lt;script&gt;&quot;}</td><td>3</td>"), "{page}");
        assert!(page.contains("<td>x</td><td>–</td>"), "{page}");
        assert!(page.contains("<td>&lt;i&gt;</td><td>a &amp; b</td>"), "{page}");
        assert!(page.contains("&lt;/p&gt;&lt;script&gt;alert(&#39;&amp;&#39;)"), "{page}");
        assert!(page.contains("<figcaption>&lt;b&gt;</figcaption>") && page.contains("<polyline"), "{page}");
        for foreign in ["<script", "<b>", "http:", "https:", "src=", "href=", "url(", "@import"] {
            assert!(!page.contains(foreign), "{foreign} in {page}");
        }
    }
}
