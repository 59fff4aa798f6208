import Foundation

/// The path of a file in the repository.
package func repositoryPath(_ name: String) -> String {
    URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()
        .appending(path: name).path
}

/// The path of a file in Tests/Fixtures.
package func fixturePath(_ name: String) -> String { repositoryPath("Tests/Fixtures/\(name)") }
