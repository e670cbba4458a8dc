void @name@_preprocess(const uint8_t *pixels, float *input)
{
    static const float mean[@count@] = {@mean@}, std[@count@] = {@std@};
    for (size_t i = 0; i < @NAME@_INPUT_SIZE; ++i)
        input[i] = ((float)pixels[i] / 255.0f - mean[i % @count@]) / std[i % @count@];
}
