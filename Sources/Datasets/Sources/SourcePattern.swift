import Foundation
import Imaging

/// Names of several files by braces and wildcards: `shards/{00..07}.tar`, `shards/*.tar.gz`.
enum SourcePattern {
    /// Limit on the files of one pattern.
    private static let most = 1_000_000

    static func recognizes(_ text: String) -> Bool { text.contains { "{*?[".contains($0) } }

    /// The files that a pattern names: those of braces in the order of the braces, those of wildcards in
    /// bytewise order.
    ///
    /// - Throws: if there are none, or if one that is named by braces does not exist.
    static func expand(_ pattern: String) throws(ImageError) -> [String] {
        var paths: [String] = []
        for name in try braces(pattern, of: pattern) {
            guard name.contains(where: { "*?[".contains($0) }) else {
                paths.append(name)
                continue
            }
            var found = glob_t()
            defer { globfree(&found) }
            guard glob(name, 0, nil, &found) == 0 else {
                throw ImageError(
                    .inaccessible, name: name, "no file matches; expected files such as shards/*.tar")
            }
            paths += (0..<Int(found.gl_pathc)).compactMap { found.gl_pathv[$0].map { String(cString: $0) } }
                .sorted(by: ItemNames.precedes)
        }
        var known: Set<String> = []
        return paths.filter { known.insert($0).inserted }
    }

    /// Expands `{a,b}` and `{00..07}`, from left to right.
    private static func braces(_ text: String, of pattern: String) throws(ImageError) -> [String] {
        guard let open = text.firstIndex(of: "{") else { return [text] }
        var depth = 0
        let closing = text[open...].indices.first { index in
            if text[index] == "{" { depth += 1 }
            if text[index] == "}" { depth -= 1 }
            return depth == 0
        }
        guard let close = closing else {
            throw ImageError(
                .unknownSource, name: pattern, "has { without }; expected braces as in {00..07} or {a,b}")
        }
        let content = String(text[text.index(after: open)..<close])
        let (head, tail) = (String(text[..<open]), String(text[text.index(after: close)...]))
        let rests = try braces(tail, of: pattern)
        var result: [String] = []
        for choice in try choices(content, of: pattern) {
            for inner in try braces(choice, of: pattern) {
                guard result.count + rests.count <= most else {
                    throw ImageError(
                        .unknownSource, name: pattern, "names more than \(most) files; use larger archives")
                }
                result += rests.map { head + inner + $0 }
            }
        }
        return result
    }

    /// The alternatives in a pair of braces. Numbers keep the zeros that the first one begins with.
    private static func choices(_ content: String, of pattern: String) throws(ImageError) -> [String] {
        let ends = content.components(separatedBy: "..")
        if ends.count == 2, let first = Int(ends[0]), let last = Int(ends[1]), first >= 0, last >= 0 {
            guard first <= last, last - first < most else {
                throw ImageError(
                    .unknownSource, name: pattern,
                    "{\(content)} names \(first > last ? "no" : "too many") files; expected a range such as {00..07}"
                )
            }
            let width =
                ends[0].hasPrefix("0") || ends[1].hasPrefix("0") ? max(ends[0].count, ends[1].count) : 0
            return (first...last).map { number in
                let digits = String(number)
                return String(repeating: "0", count: max(0, width - digits.count)) + digits
            }
        }
        var parts: [String] = [""]
        var depth = 0
        for character in content {
            if character == "," && depth == 0 {
                parts.append("")
                continue
            }
            if character == "{" { depth += 1 }
            if character == "}" { depth -= 1 }
            parts[parts.count - 1].append(character)
        }
        return parts
    }
}
