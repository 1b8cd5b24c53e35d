// NOT BUILT OR RUN WHERE IT WAS WRITTEN: it calls Android and ExecuTorch, which are not there. Only
// Prepare.java is compiled and tested. In build.gradle, with the version that export.json names:
//     implementation "org.pytorch:executorch-android:VERSION"

import android.graphics.Bitmap;
import org.json.JSONArray;
import org.json.JSONException;
import org.json.JSONObject;
import org.pytorch.executorch.EValue;
import org.pytorch.executorch.Module;
import org.pytorch.executorch.Tensor;

/**
 * Names the most probable class of a photo. The file model.pte has the description in it.
 *
 * <p>Decode the photo in sRGB at full size, and turn it by its EXIF orientation, before
 * {@link #classify}. Android's decoder may differ from the server's by a level or two.
 */
public final class Classify {
    /** A class, its id and name, and how probable it is: 0 to 1. */
    public record Prediction(int index, String id, String name, float probability) {}

    private final Module module;
    private final Prepare prepare;
    private final int height, width, channels;
    private final JSONObject labels;
    private final String activation;

    /** @param path of model.pte in the app's storage; an asset has to be copied there first */
    public Classify(String path) throws JSONException {
        module = Module.load(path);
        JSONObject card = new JSONObject(module.execute("predictor")[0].toStr());
        JSONObject input = card.getJSONObject("input");
        int[] size = whole(input.getJSONArray("size"));
        height = size[0];
        width = size[1];
        Object given = input.get("resize");
        int[] resized = {};
        String resize = given.toString();
        if (given instanceof Integer) {
            resize = "side";
            resized = new int[] {(Integer) given};
        } else if (given instanceof JSONArray) {
            resize = "size";
            resized = whole((JSONArray) given);
        }
        float[] mean = numbers(input.getJSONArray("mean"));
        channels = mean.length;
        prepare = new Prepare(size, resize, resized, input.getString("interpolation"), mean,
                numbers(input.getJSONArray("std")), input.getString("channels"),
                input.getString("scale"));
        labels = card.getJSONObject("labels");
        activation = card.getJSONObject("output").getString("activation");
    }

    /** Call it from one thread at a time, and not from the user interface's. */
    public Prediction classify(Bitmap photo) throws JSONException {
        int across = photo.getWidth(), down = photo.getHeight();
        int[] argb = new int[across * down];
        photo.getPixels(argb, 0, across, 0, 0, across, down);
        long[] shape = {1, channels, height, width};
        Tensor image = Tensor.fromBlob(prepare.normalised(argb, across, down), shape);
        float[] logits = module.forward(EValue.from(image))[0].toTensor().getDataAsFloatArray();
        return best(logits);
    }

    private Prediction best(float[] logits) throws JSONException {
        int index = 0;
        for (int i = 1; i < logits.length; i++) {
            index = logits[i] > logits[index] ? i : index;
        }
        double probability = logits[index];
        if (activation.equals("softmax")) {
            double sum = 0;
            for (float logit : logits) {
                sum += Math.exp(logit - logits[index]);
            }
            probability = 1 / sum;
        } else if (activation.equals("sigmoid")) {
            probability = 1 / (1 + Math.exp(-logits[index]));
        }
        if (logits.length == 1) { // one output is the evidence for the second of two classes
            index = probability > 0.5 ? 1 : 0;
            probability = index == 1 ? probability : 1 - probability;
        }
        JSONArray label = labels.getJSONArray(Integer.toString(index));
        return new Prediction(index, label.getString(0), label.getString(1), (float) probability);
    }

    private static int[] whole(JSONArray values) throws JSONException {
        int[] numbers = new int[values.length()];
        for (int i = 0; i < numbers.length; i++) {
            numbers[i] = values.getInt(i);
        }
        return numbers;
    }

    private static float[] numbers(JSONArray values) throws JSONException {
        float[] numbers = new float[values.length()];
        for (int i = 0; i < numbers.length; i++) {
            numbers[i] = (float) values.getDouble(i);
        }
        return numbers;
    }
}
