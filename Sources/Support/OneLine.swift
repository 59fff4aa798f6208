extension String {
    /// The text as one line of an error message, safe for text from hostile files: control characters, line
    /// ends and bidirectional formatting characters are escaped, and the middle of a long text is omitted.
    package func oneLine(limit: Int = 4000) -> String {
        if utf8.count <= limit, utf8.allSatisfy({ $0 >= 0x20 && $0 < 0x7F }) { return self }
        var line = String.UnicodeScalarView()
        for scalar in unicodeScalars.prefix(limit) { line.append(shown: scalar) }
        guard unicodeScalars.count > limit else { return String(line) }
        var end = String.UnicodeScalarView()
        for scalar in unicodeScalars.suffix(limit / 4) { end.append(shown: scalar) }
        // Keep the end of the message: it has the expected value and the remedy.
        return String(line.prefix(limit / 2)) + " … " + String(end.suffix(limit / 2))
    }
}

extension String.UnicodeScalarView {
    fileprivate mutating func append(shown scalar: Unicode.Scalar) {
        switch scalar.properties.generalCategory {
        case .control, .format, .lineSeparator, .paragraphSeparator:
            append(contentsOf: "\\u{\(String(scalar.value, radix: 16))}".unicodeScalars)
        default: append(scalar)
        }
    }
}

/// The first `limit` names, and how many more there are.
package func shortList(_ names: [String], limit: Int = 8) -> String {
    let more = names.count > limit ? " and \(names.count - limit) more" : ""
    return names.prefix(limit).joined(separator: ", ") + more
}
