/// The style of the slides: CSS on top of Marp's default theme, whose slides measure 1280×720 pixels.
enum MarpStyle {
    /// Pixels available for a picture or chart between a slide's title and the caption.
    static let pictureWidth = 1100
    static let pictureHeight = 480

    /// Number of table rows above which a slide gets the class `dense`.
    static let looseRows = 9

    static let css = """
        section { font-size: 26px; padding: 44px 64px 56px; place-content: start; font-family: "Helvetica Neue", Arial, "Noto Sans", "Hiragino Sans", "Noto Sans CJK JP", sans-serif; }
        section.lead { place-content: center; }
        h1 { font-size: 1.4em; color: #1f2328; border-bottom: 3px solid #2a66b0; padding-bottom: 0.25em; margin-bottom: 0.6em; }
        section.lead h1 { font-size: 2.3em; border: none; margin-bottom: 0.2em; }
        em { font-style: normal; font-size: 0.75em; color: #5c636b; }
        table { display: table; width: 100%; font-size: 0.85em; line-height: 1.35; }
        section.dense table { font-size: 0.65em; }
        tr, tr:nth-child(2n) { background: none; border: none; }
        th, td { border: none; border-bottom: 1px solid #d8dee4; padding: 0.25em 0.7em; }
        th { text-align: left; }
        thead:not(:has(th:not(:empty))) { display: none; }
        table:has(img) th, table:has(img) td { border: none; padding: 0.2em; text-align: center; font-weight: normal; }
        p:has(> img:only-child) { text-align: center; margin-bottom: 0.2em; }
        p:has(> img:only-child) + p { text-align: center; }
        section.shares td:nth-child(2) { color: #2a66b0; white-space: nowrap; width: 60%; }
        """
}
