extension JSONValue {
    /// The value as JSON text. Numbers have the shortest digits that round-trip to the same `Double`.
    ///
    /// - Parameter pretty: one member per line, indented by two spaces as in diffusers; otherwise one line.
    /// - Throws: `JSONError.nonFinite` for NaN and infinities, with the path of the value.
    package func text(pretty: Bool = false) throws(JSONError) -> String {
        var writer = JSONWriter(pretty: pretty)
        try writer.write(self, path: "", indent: 0)
        return writer.text
    }

    /// A string in JSON quotes.
    package static func quoted(_ string: String) -> String {
        var writer = JSONWriter(pretty: false)
        writer.write(string)
        return writer.text
    }
}

private struct JSONWriter {
    let pretty: Bool
    var text = ""

    init(pretty: Bool) { self.pretty = pretty }

    mutating func write(_ value: JSONValue, path: String, indent: Int) throws(JSONError) {
        switch value {
        case .null: text += "null"
        case .bool(let value): text += value ? "true" : "false"
        case .integer(let value): text += String(value)
        case .number(let value):
            guard value.isFinite else { throw .nonFinite(path: path) }
            text += value.description
        case .string(let value): write(value)
        case .array(let elements):
            // Lists of scalars, such as channel lists, stay on one line for readability.
            let spread = pretty && elements.contains { $0.arrayValue != nil || $0.objectValue != nil }
            text += "["
            for (index, element) in elements.enumerated() {
                if index > 0 { text += spread || !pretty ? "," : ", " }
                if spread { newLine(indent + 1) }
                try write(element, path: "\(path)[\(index)]", indent: indent + 1)
            }
            if spread { newLine(indent) }
            text += "]"
        case .object(let object):
            text += "{"
            for (index, member) in object.members.enumerated() {
                if index > 0 { text += "," }
                if pretty { newLine(indent + 1) }
                write(member.key)
                text += pretty ? ": " : ":"
                let memberPath = path.isEmpty ? member.key : "\(path).\(member.key)"
                try write(member.value, path: memberPath, indent: indent + 1)
            }
            if pretty, !object.isEmpty { newLine(indent) }
            text += "}"
        }
    }

    mutating func write(_ string: String) {
        text += "\""
        for scalar in string.unicodeScalars {
            switch scalar {
            case "\"": text += "\\\""
            case "\\": text += "\\\\"
            case "\n": text += "\\n"
            case "\r": text += "\\r"
            case "\t": text += "\\t"
            case _ where scalar.value < 0x20 || scalar.value == 0x7F:
                text += "\\u00" + (scalar.value < 16 ? "0" : "") + String(scalar.value, radix: 16)
            default: text.unicodeScalars.append(scalar)
            }
        }
        text += "\""
    }

    mutating func newLine(_ indent: Int) {
        text += "\n" + String(repeating: "  ", count: indent)
    }
}
