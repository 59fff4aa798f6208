import FileFormats
import Foundation

/// Descriptions of all configuration keys for users, derived from their declarations.
package enum ConfigurationReference {
    /// docs/configuration.md.
    package static func markdown() -> String {
        let unet = Configuration.descriptions()
        let autoencoder = AutoencoderConfiguration.descriptions()
        var out = """
            # Configuration

            <!-- Written by `disttrain config --reference`; a test compares the two. -->

            A configuration is a YAML file. `disttrain config` prints one with all keys, their defaults and their meaning, \
            and `disttrain config --check FILE` checks one without starting a run. `--set train.steps=1000` overrides a \
            key on the command line; an unknown key is an error that names the nearest valid one. Values of Booleans are \
            `true` and `false`; `null` stands for "not given".

            The column "on resume" says whether the key may change when a run resumes from a checkpoint: "yes"; "ask": \
            only if `--allow-change` names the key; "no": never (see [resume.md](resume.md)).


            """
        out += "## Training a diffusion model: `disttrain train`\n\n"
        out += table(unet.filter { $0.children == nil }, prefix: "")
        for section in unet { out += markdown(section) }
        let shared = Set(unet.flatMap(\.leaves).map(\.name))
        out += "## Training an autoencoder: `disttrain vae train`\n\n"
        out +=
            "The keys above without `first_stage`, `diffusion`, `sampling` and `evaluation`, but with another "
        out += "`model` and with `loss`.\n\n"
        for section in autoencoder where section.name == "model" || !shared.contains(section.leaves[0].name) {
            out += markdown(section)
        }
        return out.trimmingCharacters(in: .newlines) + "\n"
    }

    private static func markdown(_ section: ConfigKeyDescription) -> String {
        guard let keys = section.children else { return "" }
        return "### `\(section.name)`\n\n\(section.help)\n\n" + table(keys, prefix: section.name + ".")
    }

    private static func table(_ keys: [ConfigKeyDescription], prefix: String) -> String {
        var out = "| key | values | default | on resume | meaning |\n|---|---|---|---|---|\n"
        for key in keys {
            let value = key.isRequired ? "required" : key.defaultText ?? "`\(YAMLNode.flow(key.value))`"
            out +=
                "| `\(key.name.dropFirst(prefix.count))` | \(key.values) | \(value) | \(onResume(key.change)) "
                + "| \(key.help) |\n"
        }
        return out + "\n"
    }

    private static func onResume(_ change: ChangeEffect) -> String {
        switch change {
        case .harmless: "yes"
        case .harmful(let reason): "ask: \(reason)"
        case .impossible(let reason): "no: \(reason)"
        }
    }

    /// A configuration with all keys, each preceded by its meaning and valid values. Keys are commented out
    /// where the default depends on other keys, or the value is not written.
    ///
    /// - Parameters:
    ///   - values: the values to print; nil for the defaults, with an example for each required key.
    package static func commentedYAML<Section: TrainingConfiguration>(
        _ type: Section.Type, values: Section? = nil
    ) -> String {
        var out = ""
        let node = values?.node
        for key in Section.descriptions() {
            if key.children != nil, !out.isEmpty { out += "\n" }
            write(key, node, isExample: values == nil, indent: 0, into: &out)
        }
        return out
    }

    private static func write(
        _ key: ConfigKeyDescription, _ node: ConfigNode?, isExample: Bool, indent: Int, into out: inout String
    ) {
        let space = String(repeating: "    ", count: indent)
        let name = key.path[key.path.count - 1]
        let own = node?[name]
        if let children = key.children {
            for line in wrapped(key.help, width: 100) { out += "\(space)# \(line)\n" }
            // A section that may be absent is an example only.
            let isComment = isExample ? key.isOptional : own == nil
            var inner = ""
            for child in children {
                write(child, own, isExample: isExample || isComment, indent: indent + 1, into: &inner)
            }
            let text = "\(space)\(name):\n\(inner)"
            out += isComment ? text.split(separator: "\n").map { "# \($0)\n" }.joined() : text
            return
        }
        var notes = [key.values]
        if key.isRequired {
            notes.append("required")
        } else if let text = key.defaultText {
            notes.append("default: \(text)")
        } else if !isExample, own?.json != key.value.json {
            notes.append("default: \(YAMLNode.flow(key.value))")
        }
        for line in wrapped("\(key.help) [\(notes.joined(separator: "; "))]", width: 100) {
            out += "\(space)# \(line)\n"
        }
        let isComment = isExample ? key.defaultText != nil : own == nil
        out += "\(space)\(isComment ? "# " : "")\(name): \(YAMLNode.flow(own ?? key.value))\n"
    }

    private static func wrapped(_ text: String, width: Int) -> [String] {
        var lines = [""]
        for word in text.split(separator: " ") {
            let last = lines[lines.count - 1]
            if last.isEmpty {
                lines[lines.count - 1] = String(word)
            } else if last.count + 1 + word.count <= width {
                lines[lines.count - 1] += " \(word)"
            } else {
                lines.append(String(word))
            }
        }
        return lines
    }
}
