// Embeds token ids as a folder of bge-export says: java -cp onnxruntime.jar Embed.java FOLDER < token-ids > vectors.
// It needs com.microsoft.onnxruntime:onnxruntime, and is checked with: bge-export check-contract --token-ids.

import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import java.util.Scanner;
import java.util.regex.Pattern;

class Embed {
  static String find(String json, String pattern) {
    var match = Pattern.compile(pattern).matcher(json);
    if (!match.find()) throw new IllegalStateException("embedding.json has no " + pattern);
    return match.group(1);
  }

  static float[] pooled(float[][] states, String pooling) {
    if (!pooling.equals("mean")) return states[pooling.equals("cls") ? 0 : states.length - 1];
    var mean = new float[states[0].length];
    for (var state : states) for (int i = 0; i < mean.length; i++) mean[i] += state[i] / states.length;
    return mean;
  }

  public static void main(String[] arguments) throws Exception {
    var folder = Path.of(arguments[0]);
    var contract = Files.readString(folder.resolve("embedding.json"));
    var pooling = find(contract, "\"pooling\": \"(\\w+)\"");
    var normalize = Boolean.parseBoolean(find(contract, "\"normalize\": (\\w+)"));
    var file = find(contract, "\"target\": \"onnx-fp32\",\\s*\"file\": \"([^\"]+)\"");
    var output = find(contract, "\"(\\w+)\": \"token states\"");

    var environment = OrtEnvironment.getEnvironment();
    var session = environment.createSession(folder.resolve(file).toString());
    for (var lines = new Scanner(System.in); lines.hasNextLine(); ) {
      var numbers = lines.nextLine().replaceAll("[\\[\\]\\s]", "").split(",");
      var ids = Arrays.stream(numbers).mapToLong(Long::parseLong).toArray();
      var mask = new long[ids.length];
      Arrays.fill(mask, 1);

      var types = new long[ids.length];
      Map<String, long[]> rows = Map.of("input_ids", ids, "attention_mask", mask, "token_type_ids", types);
      var given = new HashMap<String, OnnxTensor>();
      for (var name : session.getInputNames()) {
        given.put(name, OnnxTensor.createTensor(environment, new long[][] {rows.get(name)}));
      }

      var states = (float[][][]) session.run(given).get(output).orElseThrow().getValue();
      var vector = pooled(states[0], pooling);
      double norm = 0;
      for (float value : vector) norm += (double) value * value;
      if (normalize) for (int i = 0; i < vector.length; i++) vector[i] /= Math.sqrt(norm);
      System.out.println(Arrays.toString(vector));
    }
  }
}
