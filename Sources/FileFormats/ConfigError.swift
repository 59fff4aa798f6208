import Support

/// What is wrong with a configuration, in one line: file, line, key, what was found, what was expected.
package struct ConfigError: ReportableError, Equatable, Sendable {
    /// The sort of mistake.
    package enum Kind: Sendable, Equatable {
        /// The file cannot be read.
        case file
        /// The text is not YAML or JSON.
        case syntax
        /// A key that nothing reads.
        case unknownKey
        /// A key that must be given is not.
        case missingKey
        /// A string where a number belongs, and the like.
        case wrongType
        /// Right type, impossible value.
        case invalidValue
        /// Valid for diffusers, but not built here.
        case unsupported
    }

    package var kind: Kind
    /// Keys from the root of the configuration to the mistake.
    package var path: [String]
    package var detail: String
    package var location: ConfigNode.Location?

    package init(
        _ kind: Kind, at path: [String] = [], _ detail: String, location: ConfigNode.Location? = nil
    ) {
        self.kind = kind
        self.path = path
        self.detail = detail
        self.location = location
    }

    package var exitStatus: Int32 { ExitStatus.usage }
    package var message: String {
        var text = ""
        if let location { text += "\(location): " }
        if !path.isEmpty { text += path.joined(separator: ".") + ": " }
        return (text + detail).oneLine()
    }

    /// The same error, for a configuration that stands under `prefix` in a larger one: the path grows, and
    /// the location is looked up in the section's node.
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
