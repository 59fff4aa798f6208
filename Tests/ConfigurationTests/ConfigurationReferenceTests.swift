import Configuration
import FileFormats
import Foundation
import Testing
import TestSupport

@Suite struct ConfigurationReferenceTests {
    @Test func theReferenceIsUpToDate() throws {
        let written = try String(contentsOfFile: repositoryPath("docs/configuration.md"), encoding: .utf8)
        #expect(
            written == ConfigurationReference.markdown(),
            "run `disttrain config --reference > docs/configuration.md`")
    }

    @Test func everyKeyHasHelp() {
        for key in (Configuration.descriptions() + AutoencoderConfiguration.descriptions()).flatMap(\.leaves)
        {
            #expect(key.help.hasSuffix(".") && !key.values.isEmpty, "\(key.name)")
        }
    }

    /// The printed configuration template is valid and has the printed defaults.
    @Test func thePrintedConfigurationIsValid() throws {
        let text = ConfigurationReference.commentedYAML(Configuration.self)
        let printed = try Configuration(yaml: text, source: "printed")
        var expected = Configuration()
        expected.data.size = printed.data.size
        expected.data.count = printed.data.count
        #expect(printed == expected)
        for key in Configuration.descriptions().flatMap(\.leaves) {
            #expect(text.contains("\(key.path[key.path.count - 1]):"), "\(key.name)")
        }
        let autoencoder = ConfigurationReference.commentedYAML(AutoencoderConfiguration.self)
        #expect(try AutoencoderConfiguration(yaml: autoencoder, source: "printed").loss == .init())
    }

    /// The output of `--check` is an equivalent configuration.
    @Test(arguments: ["tiny.yaml", "quickstart.yaml", "celeba_hq_256.yaml"])
    func checkedConfigurationsReadBack(name: String) throws {
        let configuration = try Configuration.load(path: repositoryPath("configs/\(name)"))
        let text = ConfigurationReference.commentedYAML(Configuration.self, values: configuration)
        #expect(try Configuration(yaml: text, source: name) == configuration)
    }

    @Test func asyncOfOldFilesIsAccepted() throws {
        let path = repositoryPath("configs/tiny.yaml")
        let given = try Configuration.load(path: path, overrides: ["checkpoint.async=true"])
        #expect(try given == Configuration.load(path: path))
    }
}
