//! Plots as PNG, with the fonts of the system.

use std::sync::Arc;

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb};

use crate::error::{Error, Result};

/// Fonts for text in PNG files (feature `png`). Loading them takes a moment, so load them once for many plots.
#[derive(Debug, Clone)]
pub struct PngFonts(Arc<fontdb::Database>);

impl PngFonts {
    /// Loads the fonts of the system; `None` if there are none, so that plots would have no text.
    pub fn of_system() -> Option<Self> {
        let mut fonts = fontdb::Database::new();
        fonts.load_system_fonts();
        // Plots ask for a sans-serif font; any that the system has will do.
        const KNOWN: [&str; 8] =
            ["DejaVu Sans", "Liberation Sans", "Noto Sans", "Helvetica", "Arial", "Cantarell", "Ubuntu", "Segoe UI"];
        let has = |name: &str| fonts.faces().any(|face| face.families.iter().any(|(family, _)| family == name));
        let first = || Some(fonts.faces().next()?.families.first()?.0.clone());
        let family = KNOWN.into_iter().find(|name| has(name)).map(str::to_owned).or_else(first)?;
        fonts.set_sans_serif_family(family);
        Some(Self(Arc::new(fonts)))
    }
}

/// Renders SVG text as the bytes of a PNG file (feature `png`), with `scale` pixels to a unit of the SVG.
///
/// # Errors
/// [`Error::Draw`] if the text is not SVG, or the image would be empty or too large.
pub fn png(svg: &str, scale: f32, fonts: &PngFonts) -> Result<Vec<u8>> {
    let failed = |reason: String| Error::Draw { reason };
    let options = Options { fontdb: Arc::clone(&fonts.0), ..Options::default() };
    let tree = Tree::from_str(svg, &options).map_err(|e| failed(e.to_string()))?;
    let size =
        tree.size().to_int_size().scale_by(scale).ok_or_else(|| failed("the image would be empty".to_owned()))?;
    let mut image =
        Pixmap::new(size.width(), size.height()).ok_or_else(|| failed("the image would be too large".to_owned()))?;
    resvg::render(&tree, Transform::from_scale(scale, scale), &mut image.as_mut());
    image.encode_png().map_err(|e| failed(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_becomes_an_image_of_its_size() {
        // A machine without fonts makes no images, and the report says so.
        let Some(fonts) = PngFonts::of_system() else { return };
        let text = crate::plot::svg(&[crate::plot::Panel {
            title: "Loss".into(),
            x: "update".into(),
            series: vec![crate::plot::Series { name: "a".into(), points: vec![(0.0, 1.0), (1.0, 2.0)] }],
            smooth: false,
            baseline: None,
        }])
        .unwrap();
        let image = png(&text, 2.0, &fonts).unwrap();
        let decoded = Pixmap::decode_png(&image).unwrap();
        assert_eq!((decoded.width(), decoded.height()), (840, 640));
        let dark = decoded.pixels().iter().filter(|p| p.red() < 90 && p.green() < 90 && p.blue() < 90).count();
        assert!(dark > 300, "text is drawn: {dark} dark pixels");
        assert!(png("<svg", 1.0, &fonts).is_err());
    }
}
