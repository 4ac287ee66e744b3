//! SVG figures as PNG, with the system's fonts.

use std::sync::Arc;

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb};

use super::PlotError;

/// The fonts that text is drawn with. Looking them up takes a moment, so one serves many figures.
#[derive(Debug, Clone)]
pub struct PngFonts(Arc<fontdb::Database>);

impl PngFonts {
    /// The system's fonts; none where it has none, and figures would have no text.
    pub fn of_system() -> Option<Self> {
        let mut fonts = fontdb::Database::new();
        fonts.load_system_fonts();
        // The family that the figures ask for is whatever the system has of its kind.
        const KNOWN: [&str; 8] =
            ["DejaVu Sans", "Liberation Sans", "Noto Sans", "Helvetica", "Arial", "Cantarell", "Ubuntu", "Segoe UI"];
        let has = |name: &str| fonts.faces().any(|face| face.families.iter().any(|(family, _)| family == name));
        let first = || Some(fonts.faces().next()?.families.first()?.0.clone());
        let family = KNOWN.into_iter().find(|name| has(name)).map(str::to_owned).or_else(first)?;
        fonts.set_sans_serif_family(family);
        Some(Self(Arc::new(fonts)))
    }
}

/// The figure as the bytes of a PNG file, `scale` pixels to a unit of the SVG.
///
/// # Errors
/// [`PlotError::Draw`] if the text is not SVG, or the picture would be empty or too large.
pub fn png(svg: &str, scale: f32, fonts: &PngFonts) -> Result<Vec<u8>, PlotError> {
    let failed = |reason: String| PlotError::Draw { reason };
    let options = Options { fontdb: Arc::clone(&fonts.0), ..Options::default() };
    let tree = Tree::from_str(svg, &options).map_err(|e| failed(e.to_string()))?;
    let size = tree.size().to_int_size().scale_by(scale).ok_or_else(|| failed("no picture".to_owned()))?;
    let mut picture = Pixmap::new(size.width(), size.height()).ok_or_else(|| failed("too large".to_owned()))?;
    resvg::render(&tree, Transform::from_scale(scale, scale), &mut picture.as_mut());
    picture.encode_png().map_err(|e| failed(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_becomes_a_picture_of_its_size() {
        // A machine without fonts has no pictures, and the report says so.
        let Some(fonts) = PngFonts::of_system() else { return };
        let text = crate::svg(&[crate::Panel {
            title: "Loss".into(),
            x: "update".into(),
            series: vec![crate::Series { name: "a".into(), points: vec![(0.0, 1.0), (1.0, 2.0)] }],
            smooth: false,
            baseline: None,
        }])
        .unwrap();
        let picture = png(&text, 2.0, &fonts).unwrap();
        let decoded = Pixmap::decode_png(&picture).unwrap();
        assert_eq!((decoded.width(), decoded.height()), (840, 640));
        let dark = decoded.pixels().iter().filter(|p| p.red() < 90 && p.green() < 90 && p.blue() < 90).count();
        assert!(dark > 300, "text is drawn: {dark} dark pixels");
        assert!(png("<svg", 1.0, &fonts).is_err());
    }
}
