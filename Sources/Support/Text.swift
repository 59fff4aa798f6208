/// A number with leading zeros, e.g. "00042". A longer number is not truncated.
///
/// - Parameter radix: 10, or 16 for hexadecimal digits in lower case.
package func padded(_ number: some BinaryInteger, digits: Int, radix: Int = 10) -> String {
    let text = String(number, radix: radix)
    return String(repeating: "0", count: max(0, digits - text.count)) + text
}

extension String {
    /// The text that a C function wrote to a buffer, up to the terminating zero.
    package init(terminated buffer: [CChar]) {
        self.init(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

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

/// The candidate nearest to a misspelled name, or nil if none is close.
///
/// The distance is optimal string alignment (insertions, deletions, substitutions, transpositions of adjacent
/// letters). A candidate is close if its distance is at most a third of the name's length, or two letters for
/// short names, or if one of the two names contains the other.
///
/// To bound the cost, names of more than 200 bytes are ignored and only the first 10,000 candidates are
/// compared.
package func nearestName(to name: String, among candidates: [String]) -> String? {
    let longest = 200
    guard name.utf8.count <= longest else { return nil }
    let candidates = candidates.prefix(10_000).filter { $0.utf8.count <= longest }
    let most = max(2, name.count / 3)
    let letters = Array(name.lowercased())
    var best: (name: String, distance: Int)?
    for candidate in candidates where abs(candidate.count - name.count) <= most {
        let distance = editDistance(letters, Array(candidate.lowercased()))
        if distance <= most, distance < best?.distance ?? .max { best = (candidate, distance) }
    }
    if let best { return best.name }
    guard name.count >= 3 else { return nil }
    return candidates.filter { $0.contains(name) || name.contains($0) && $0.count >= 3 }.min {
        $0.count < $1.count
    }
}

private func editDistance(_ a: [Character], _ b: [Character]) -> Int {
    if a.isEmpty || b.isEmpty { return max(a.count, b.count) }
    var beforeLast = [Int](repeating: 0, count: b.count + 1)
    var last = Array(0...b.count)
    for i in 1...a.count {
        var row = [Int](repeating: i, count: b.count + 1)
        for j in 1...b.count {
            let substitution = last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)
            row[j] = min(last[j] + 1, row[j - 1] + 1, substitution)
            if i > 1, j > 1, a[i - 1] == b[j - 2], a[i - 2] == b[j - 1] {
                row[j] = min(row[j], beforeLast[j - 2] + 1)
            }
        }
        beforeLast = last
        last = row
    }
    return last[b.count]
}

extension String {
    /// Whether at most 30 combining marks follow one another, as in the Unicode standard's stream-safe text
    /// format (UAX #15, section 13). Comparing and hashing strings sorts such marks in quadratic time: each
    /// lookup of a 100 KB name would take ten seconds.
    package var isStreamSafe: Bool {
        if utf8.allSatisfy({ $0 < 0x80 }) { return true }
        var run = 0
        for scalar in unicodeScalars {
            switch scalar.properties.generalCategory {
            case .nonspacingMark, .spacingMark, .enclosingMark: run += 1
            default: run = 0
            }
            if run > 30 { return false }
        }
        return true
    }
}
