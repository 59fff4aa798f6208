import FileFormats
import Harness
import Support

/// What parses can be written, and reads back as the same.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let bytes = Array(UnsafeBufferPointer(start: start, count: count))
    expectCleanly {
        let value = try JSONValue(parsing: bytes[...])
        for pretty in [false, true] {
            let again = try JSONValue(parsing: value.text(pretty: pretty))
            precondition(again == value, "reads back differently")
        }
        let node = ConfigNode(value, source: "fuzz")
        precondition(node.json == value, "another tree")
        precondition(node.found.utf8.count < 10_000)
    }
    return 0
}
