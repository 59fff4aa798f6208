import Foundation

/// The path of the running program, so that the ranks run the same executable regardless of PATH.
package func ownExecutable() throws -> String {
    try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
}
