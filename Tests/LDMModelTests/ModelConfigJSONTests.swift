import Support
import Testing

@Suite struct ModelConfigJSONTests {
    @Test func readsAndWritesEveryKindOfValue() throws {
        let text = #"{"a":[1,-2.5,1e-30,true,false,null],"b":{"c":"x\n\"\\ü😀"},"big":12345678901234567890}"#
        let value = try JSONValue(parsing: text)
        #expect(value["a"] == [1, -2.5, 1e-30, true, false, nil])
        #expect(value["b"]?["c"] == "x\n\"\\ü😀")
        #expect(value["big"]?.intValue == nil)
        #expect(try JSONValue(parsing: value.text()) == value)
        #expect(try JSONValue(parsing: value.text(pretty: true)) == value)
        #expect(value.objectValue?.keys == ["a", "b", "big"])
        #expect(try JSONValue(parsing: #""\u00e9\ud83d\ude00\u0000""#) == "é😀\u{0}")
    }

    @Test func numbersRoundTrip() throws {
        let doubles = [0.1, 1 / 3, .leastNonzeroMagnitude, .greatestFiniteMagnitude, -0.0, 1e17 + 16, 2e-4]
        for value in doubles {
            let back = try JSONValue(parsing: JSONValue.number(value).text())
            #expect(back.doubleValue?.bitPattern == value.bitPattern)
        }
        let floats: [Float] = [0.1, 1 / 3, .leastNonzeroMagnitude, .greatestFiniteMagnitude, 16_777_215]
        for value in floats {
            let text = try JSONValue.float(value).text()
            #expect(text.count <= value.description.count + 2)
            #expect(Float(try #require(JSONValue(parsing: text).doubleValue)) == value)
        }
    }

    @Test func nonFiniteNumbersAreNeverWritten() throws {
        for value in [Double.nan, .infinity, -.infinity] {
            let document: JSONValue = ["metrics": [1, ["loss": .number(value)]]]
            let error = try #require(throws: JSONError.self) { try document.text() }
            #expect(error == .nonFinite(path: "metrics[1].loss"))
        }
    }

    @Test(arguments: [
        "", "{", "[1,]", "{\"a\":1,}", "{\"a\" 1}", "{a:1}", "01", "1.", ".5", "+1", "-", "1e", "NaN",
        "Infinity", "tru",
        "\"", "\"\u{1}\"", #""\x""#, #""\ud800""#, #""\ud800\u0041""#, #""\u12""#, "1 2", "[1] x", "'a'",
        "1e999", "/**/1",
    ])
    func malformedTextIsRefused(text: String) {
        #expect(throws: JSONError.self) { try JSONValue(parsing: text) }
    }

    @Test func placesAreNamed() throws {
        let duplicate = try #require(throws: JSONError.self) {
            try JSONValue(parsing: "{\"a\": 1,\n  \"a\": 2}")
        }
        #expect(duplicate == .duplicateKey("a", line: 2, column: 3))
        let deep = try #require(throws: JSONError.self) {
            try JSONValue(parsing: String(repeating: "[", count: 1_000_000))
        }
        #expect(deep == .tooDeep(limit: 64, line: 1, column: 65))
        #expect(throws: JSONError.self) { try JSONValue(parsing: [0x22, 0xFF, 0x22][...]) }
    }

    @Test func nearestNames() {
        let keys = ["learning_rate", "warmup_steps", "betas", "weight_decay"]
        #expect(nearestName(to: "learning_rat", among: keys) == "learning_rate")
        #expect(nearestName(to: "LearningRate", among: keys) == "learning_rate")
        #expect(nearestName(to: "warmup", among: keys) == "warmup_steps")
        #expect(nearestName(to: "beats", among: keys) == "betas")
        #expect(nearestName(to: "zzzzzzzz", among: keys) == nil)
    }
}
