/// The style sheet of the report page: light or dark by the reader's system setting, for any screen width and
/// for print.
enum HTMLStyle {
    static let text = """

        :root {
          color-scheme: light dark;
          --paper: #fdfdfb; --ink: #1f2328; --soft: #5c636b; --faint: #e5e5e0; --wash: #f4f4f0; --accent: #1f5fa8;
          --c0: #1f5fa8; --c1: #c8641c; --c2: #2b8a5f; --c3: #a8324a; --c4: #6f54a8; --c5: #21808c; --c6: #8f6a1d; --c7: #6a717a;
          --serif: Charter, "Bitstream Charter", "Source Serif 4", "Noto Serif", Cambria, Georgia, serif;
          --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Hiragino Sans", "Noto Sans JP",
            "Noto Sans CJK JP", "Yu Gothic", Meiryo, sans-serif;
          --mono: ui-monospace, "SF Mono", "Cascadia Mono", "Noto Sans Mono", Menlo, Consolas, monospace;
        }
        @media (prefers-color-scheme: dark) {
          :root {
            --paper: #16181b; --ink: #e4e6e8; --soft: #9aa2ab; --faint: #2c3036; --wash: #1e2125; --accent: #7fb2ea;
            --c0: #6ea8e6; --c1: #e8924f; --c2: #5cbd8f; --c3: #e07a90; --c4: #a992df; --c5: #58b9c5; --c6: #cda552; --c7: #9aa2ab;
          }
        }
        * { box-sizing: border-box; }
        html { font-size: 106.25%; -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
        body {
          margin: 0 auto; padding: 3.5rem 1.5rem 4rem; max-width: 78rem; background: var(--paper); color: var(--ink);
          font-family: var(--serif); line-height: 1.6; display: grid; column-gap: 3.5rem;
          grid-template: "header" "nav" "main" "footer" / minmax(0, 1fr);
        }
        html:lang(ja) body { font-family: var(--sans); line-height: 1.8; }
        header { grid-area: header; } nav { grid-area: nav; } main { grid-area: main; } footer { grid-area: footer; }
        .kind, nav, figcaption, .legend, .plot span, dt, th, footer, .figures, summary, .facts, table {
          font-family: var(--sans);
        }
        .kind { margin: 0; font-size: .78rem; letter-spacing: .06em; color: var(--soft); }
        h1 { margin: .2rem 0 .9rem; font-size: 2.3rem; line-height: 1.15; letter-spacing: -.015em; font-weight: 600;
          overflow-wrap: anywhere; }
        h2 { margin: 0 0 1rem; font-size: 1.35rem; line-height: 1.25; font-weight: 600; letter-spacing: -.005em; }
        h3 { margin: 1.6rem 0 .5rem; font: 600 .95rem/1.4 var(--sans); overflow-wrap: anywhere; }
        p { margin: 0 0 1rem; max-width: 42rem; }
        .summary { font-size: 1.12rem; max-width: 46rem; overflow-wrap: anywhere; }
        section { padding: 2.2rem 0 1.2rem; border-top: 1px solid var(--faint); scroll-margin-top: 1rem; }
        section > :last-child { margin-bottom: .6rem; }
        a { color: var(--accent); text-decoration: none; } a:hover { text-decoration: underline; }
        code { font-family: var(--mono); font-size: .86em; overflow-wrap: anywhere; }
        ul { padding-left: 1.2rem; max-width: 46rem; overflow-wrap: anywhere; }
        .missing { color: var(--soft); font-style: italic; }
        html:lang(ja) .missing { font-style: normal; }
        .missing code { font-style: normal; }
        nav { margin: 1rem 0 2rem; font-size: .82rem; line-height: 1.5; }
        nav ol { margin: 0; padding: 0; list-style: none; display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; }
        .figures { margin: 1.8rem 0 .5rem; display: flex; flex-wrap: wrap; gap: 1rem 2.6rem; }
        .figures div { display: flex; flex-direction: column-reverse; }
        .figures dt { font-size: .78rem; color: var(--soft); }
        .figures dd { margin: 0; font-size: 1.45rem; line-height: 1.3; font-weight: 600; letter-spacing: -.01em;
          font-variant-numeric: tabular-nums; }
        .facts { margin: 0 0 1.2rem; font-size: .86rem; line-height: 1.5; }
        .facts div { display: grid; grid-template-columns: 11rem minmax(0, 1fr); gap: 1rem; padding: .38rem 0;
          border-bottom: 1px solid var(--faint); }
        .facts dt { color: var(--soft); } .facts dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
        .table { margin: 0 0 1.4rem; } .table > div { overflow-x: auto; }
        .table figcaption { padding-top: .6rem; max-width: 42rem; }
        table { border-collapse: collapse; font-size: .86rem; line-height: 1.45; font-variant-numeric: tabular-nums;
          min-width: min(100%, 28rem); }
        th { font-weight: 500; color: var(--soft); text-align: left; vertical-align: bottom;
          border-bottom: 1px solid var(--soft); }
        td { border-bottom: 1px solid var(--faint); vertical-align: top; }
        th, td { padding: .38rem 1.4rem .38rem 0; } th:last-child, td:last-child { padding-right: 0; }
        .n { text-align: right; }
        .k, td code { white-space: nowrap; }
        figure { margin: 0; }
        figcaption { font-size: .8rem; line-height: 1.45; color: var(--soft); }
        .chart { margin: 0 0 2.2rem; }
        .chart figcaption { font-size: .9rem; font-weight: 600; color: var(--ink); margin-bottom: .8rem; }
        .chart small { font-weight: 400; color: var(--soft); margin-left: .7em; font-size: .8rem; }
        .plot { position: relative; height: 19rem; margin: 0 .6rem 3.6rem 3.4rem; }
        .plot svg { display: block; width: 100%; height: 100%; border-bottom: 1px solid var(--soft); }
        .plot line { stroke: var(--faint); stroke-width: 1; vector-effect: non-scaling-stroke; }
        .plot path { fill: none; stroke-width: 1.8; stroke-linejoin: round; vector-effect: non-scaling-stroke; }
        .plot .raw { stroke-width: 1; opacity: .28; } .dashed { stroke-dasharray: 6 4; }
        .plot span { position: absolute; font-size: .74rem; line-height: 1; color: var(--soft); white-space: nowrap;
          font-variant-numeric: tabular-nums; }
        .plot .y { right: calc(100% + .6rem); transform: translateY(-50%); }
        .plot .x { top: calc(100% + .6rem); transform: translateX(-50%); }
        .plot .x-name { top: calc(100% + 1.9rem); left: 50%; transform: translateX(-50%); }
        .legend { list-style: none; margin: 0 0 1.2rem; padding: 0; display: flex; flex-wrap: wrap; gap: .3rem 1.3rem;
          font-size: .82rem; line-height: 1.5; max-width: none; }
        .chart .legend { margin: -.6rem 0 0 3.4rem; }
        .legend li { display: flex; align-items: baseline; gap: .45rem; } .legend b { font-weight: 600; }
        .legend .note { color: var(--soft); }
        .legend i { width: .75rem; height: .75rem; border-radius: 2px; align-self: center; }
        .bar { display: flex; height: 1.5rem; gap: 1px; margin: 0 0 .7rem; border-radius: 3px; overflow: hidden; }
        .bar span { min-width: 1px; flex-basis: 0; }
        .pictures { display: flex; flex-wrap: wrap; gap: 1.4rem 1.6rem; margin: 0 0 1.4rem; align-items: flex-start; }
        .pictures figure { flex: 0 1 auto; max-width: 100%; }
        .pictures figure:not(.wide) { flex-basis: 16.5rem; }
        .pictures .wide { flex-basis: 100%; }
        .pictures img { display: block; max-width: 100%; height: auto; background: var(--wash); border-radius: 2px; }
        .pictures figcaption { margin-top: .45rem; }
        .pixels { image-rendering: pixelated; }
        details { margin: 0 0 1rem; font-size: .86rem; } summary { cursor: pointer; color: var(--accent); }
        pre { margin: .8rem 0 0; padding: 1rem 1.2rem; background: var(--wash); border-radius: 4px; overflow-x: auto;
          font: .78rem/1.55 var(--mono); }
        footer { border-top: 1px solid var(--faint); margin-top: 2rem; padding-top: 1rem; font-size: .78rem;
          color: var(--soft); }
        footer p { max-width: none; overflow-wrap: anywhere; }
        .s0 { stroke: var(--c0); } .s1 { stroke: var(--c1); } .s2 { stroke: var(--c2); } .s3 { stroke: var(--c3); }
        .s4 { stroke: var(--c4); } .s5 { stroke: var(--c5); } .s6 { stroke: var(--c6); } .s7 { stroke: var(--c7); }
        .c0 { background: var(--c0); } .c1 { background: var(--c1); } .c2 { background: var(--c2); }
        .c3 { background: var(--c3); } .c4 { background: var(--c4); } .c5 { background: var(--c5); }
        .c6 { background: var(--c6); } .c7 { background: var(--c7); }
        @media (min-width: 68rem) {
          body { grid-template: "header header" "nav main" "footer footer" / 10.5rem minmax(0, 1fr); padding-top: 4.5rem; }
          nav { position: sticky; top: 2.2rem; align-self: start; margin: 2.3rem 0 0; }
          nav ol { flex-direction: column; gap: .45rem; }
          section:first-child { border-top: 0; }
          main, nav { border-top: 1px solid var(--faint); } nav { border: 0; } header { margin-bottom: 2rem; }
        }
        @media (max-width: 40rem) {
          html { font-size: 100%; }
          body { padding: 1.8rem 1.1rem 3rem; }
          h1 { font-size: 1.75rem; } .summary { font-size: 1.05rem; }
          .figures { gap: .9rem 1.8rem; } .figures dd { font-size: 1.2rem; }
          .facts div { grid-template-columns: minmax(0, 1fr); gap: 0; }
          .plot { height: 14rem; margin-left: 3.2rem; } table { font-size: .78rem; } th, td { padding-right: .75rem; } .chart .legend { margin-left: 0; }
          .pictures figure:not(.wide) { flex-basis: calc(50% - .5rem); } .pictures { gap: 1rem; }
        }
        @media print {
          :root { --paper: #fff; --ink: #000; --soft: #444; --faint: #ccc; --wash: #f6f6f6; --accent: #000;
            --c0: #1f5fa8; --c1: #c8641c; --c2: #2b8a5f; --c3: #a8324a; --c4: #6f54a8; --c5: #21808c; --c6: #8f6a1d; --c7: #6a717a; }
          html { font-size: 82%; } body { display: block; padding: 0; max-width: none; }
          nav, details { display: none; }
          h2, h3, .chart figcaption { break-after: avoid; } figure, table, .bar, .facts div { break-inside: avoid; }
          .bar, .legend i { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
          .plot { height: 15rem; }
        }

        """
}
