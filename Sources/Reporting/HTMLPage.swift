import Foundation

/// A report as a self-contained web page, without scripts or external resources.
struct HTMLPage {
    let document: ReportDocument

    private var say: ReportLanguage { document.language }

    func text() -> String {
        let contents = document.sections.map { "<li><a href=\"#\($0.id)\">\(escaped($0.title))</a></li>" }
        let figures = document.keyFigures.map {
            "<div><dt>\(escaped($0.name))</dt><dd>\(escaped($0.value))</dd></div>"
        }
        return """
            <!DOCTYPE html>
            <html lang="\(say.rawValue)">
            <head>
            <meta charset="utf-8">
            <meta name="viewport" content="width=device-width, initial-scale=1">
            <meta name="color-scheme" content="light dark">
            <title>\(escaped(document.title)) · \(escaped(document.kind))</title>
            <style>\(HTMLStyle.text)</style>
            </head>
            <body>
            <header>
            <p class="kind">\(escaped(document.kind))</p>
            <h1>\(escaped(document.title))</h1>
            <p class="summary" id="summary">\(inline(document.summary))</p>
            \(figures.isEmpty ? "" : "<dl class=\"figures\">\(figures.joined())</dl>")
            </header>
            <nav aria-label="\(say("Contents", "目次"))"><ol>\(contents.joined())</ol></nav>
            <main>
            \(document.sections.map(section).joined(separator: "\n"))
            </main>
            <footer><p>\(inline(document.colophon))</p></footer>
            </body>
            </html>

            """
    }

    private func section(_ section: ReportSection) -> String {
        """
        <section id="\(section.id)">
        <h2>\(escaped(section.title))</h2>
        \(section.blocks.map(block).joined(separator: "\n"))
        </section>
        """
    }

    private func block(_ block: ReportBlock) -> String {
        switch block {
        case .heading(let text): return "<h3>\(escaped(text))</h3>"
        case .paragraph(let text): return "<p>\(inline(text))</p>"
        case .missing(let text): return "<p class=\"missing\">\(inline(text))</p>"
        case .list(let items):
            return "<ul>" + items.map { "<li>\(inline($0))</li>" }.joined() + "</ul>"
        case .facts(let facts):
            let rows = facts.map { "<div><dt>\(inline($0.name))</dt><dd>\(inline($0.value))</dd></div>" }
            return "<dl class=\"facts\">\(rows.joined())</dl>"
        case .table(let table): return html(table)
        case .charts(let charts):
            return charts.map { SVGChart($0, say).html }.joined(separator: "\n")
        case .pictures(let pictures): return html(pictures)
        case .shares(let shares): return html(shares)
        case .details(let title, let text):
            return
                "<details><summary>\(escaped(title))</summary><pre>\(escaped(text))</pre></details>"
        }
    }

    private func html(_ table: ReportTable) -> String {
        func row(_ cells: [String], _ tag: String) -> String {
            let scope = tag == "th" ? " scope=\"col\"" : ""
            let texts = cells.enumerated().map { index, cell in
                // Keep short cells on one line, so that dates and numbers are not broken.
                let isShort = tag == "td" && cell.count <= 24
                let classes = [table.numeric.contains(index) ? "n" : nil, isShort ? "k" : nil].compactMap {
                    $0
                }
                let attribute = classes.isEmpty ? "" : " class=\"\(classes.joined(separator: " "))\""
                return "<\(tag)\(scope)\(attribute)>\(inline(cell))</\(tag)>"
            }
            return "<tr>\(texts.joined())</tr>"
        }
        let caption = table.caption.map { $0.isEmpty ? "" : "<figcaption>\(inline($0))</figcaption>" } ?? ""
        return """
            <figure class="table"><div><table>
            <thead>\(row(table.head, "th"))</thead>
            <tbody>
            \(table.rows.map { row($0, "td") }.joined(separator: "\n"))
            </tbody></table></div>\(caption)</figure>
            """
    }

    private func html(_ pictures: [ReportPicture]) -> String {
        let figures = pictures.map { picture in
            let data = Data(picture.image.pngData()).base64EncodedString()
            let (width, height) = (picture.image.width, picture.image.height)
            // Scale small pictures by integer factors, so that their pixels stay square.
            let scale = max(1, (picture.isWide ? 640 : 280) / width)
            return """
                <figure\(picture.isWide ? " class=\"wide\"" : "")><img\(scale > 1 ? " class=\"pixels\"" : "") \
                width="\(width * scale)" height="\(height * scale)" alt="\(escaped(picture.caption))" \
                src="data:image/png;base64,\(data)"><figcaption>\(inline(picture.caption))</figcaption></figure>
                """
        }
        return "<div class=\"pictures\">\(figures.joined(separator: "\n"))</div>"
    }

    private func html(_ shares: ReportShares) -> String {
        let bars = shares.bars.map { bar -> String in
            let parts = bar.parts.map { part in
                """
                <span class="c\(part.color % 8)" style="flex-grow:\(Int((part.share * 10_000).rounded()))" \
                title="\(escaped(part.name)) \(say.percent(part.share))"></span>
                """
            }
            let words = bar.parts.map { part in
                "<li><i class=\"c\(part.color % 8)\"></i>\(escaped(part.name)) <b>\(say.percent(part.share))</b></li>"
            }
            let name = shares.bars.count > 1 ? "<h3>\(escaped(bar.name))</h3>" : ""
            return
                "\(name)<div class=\"bar\">\(parts.joined())</div><ul class=\"legend\">\(words.joined())</ul>"
        }
        return bars.joined(separator: "\n")
    }
}

/// Escapes text for use in HTML content and attributes.
func escaped(_ text: String) -> String {
    var out = ""
    for scalar in text.unicodeScalars {
        switch scalar {
        case "&": out += "&amp;"
        case "<": out += "&lt;"
        case ">": out += "&gt;"
        case "\"": out += "&quot;"
        // HTML does not allow control characters.
        case _ where scalar.value < 32 && scalar != "\n" && scalar != "\t": out += "\u{FFFD}"
        default: out.unicodeScalars.append(scalar)
        }
    }
    return out
}

/// Text with `code` between backticks. An unpaired backtick is kept as is.
private func inline(_ text: String) -> String {
    let parts = text.split(separator: "`", omittingEmptySubsequences: false).map { escaped(String($0)) }
    guard parts.count % 2 == 1 else { return escaped(text) }
    return parts.enumerated().map { $0 % 2 == 1 ? "<code>\($1)</code>" : $1 }.joined()
}
