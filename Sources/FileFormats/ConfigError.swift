import Support

/// An invalid configuration. The message is one line: file, line, key, found value, expected value.
package struct ConfigError: ReportableError, Equatable, Sendable {
    /// The category of an error.
    package enum Kind: Sendable, Equatable {
        /// The file cannot be read.
        case file
        /// The text is not YAML or JSON.
        case syntax
        /// An unrecognized key.
        case unknownKey
        /// A required key is missing.
        case missingKey
        /// A value of the wrong type, such as a string instead of a number.
        case wrongType
        /// A value of the right type that is out of range or otherwise invalid.
        case invalidValue
        /// Valid in diffusers, but not implemented here.
        case unsupported
    }

    package var kind: Kind
    /// Keys from the root of the configuration to the invalid entry.
    package var path: [String]
    package var detail: String
    package var location: ConfigNode.Location?

    package init(
        _ kind: Kind, at path: [String] = [], _ detail: String, location: ConfigNode.Location? = nil
    ) {
        (self.kind, self.path, self.detail, self.location) = (kind, path, detail, location)
    }

    package var exitStatus: Int32 { ExitStatus.usage }
    package var message: String {
        var text = ""
        if let location { text += "\(location): " }
        if !path.isEmpty { text += path.joined(separator: ".") + ": " }
        return (text + detail).oneLine()
    }

    /// The same error for a section embedded under `prefix` in a larger configuration: the path is prefixed,
    /// and a missing location is looked up in `node`, the section.
    package func placed(in node: ConfigNode, under prefix: [String]) -> ConfigError {
        var error = self
        error.path = prefix + path
        if error.location == nil {
            var place = node
            for key in path {
                guard let next = place[key] else { break }
                place = next
            }
            error.location = place.location ?? node.location
        }
        return error
    }
}
